"""The English words that the rules of `store.context` go by. Lists of ours, made by hand."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PERSONAL = _words("he him his she her hers it its they them their theirs himself herself itself themselves")
DETERMINERS = _words("a an the my our your his her its their some any no every each both all this that these those")
WH = _words("what which who whom whose when where why how what's who's where's how's when's")
AUXILIARIES = _words(
    "am is are was were be been being do does did have has had can could will would shall should may might must"
    " don't doesn't didn't isn't aren't wasn't weren't haven't hasn't hadn't can't cannot couldn't won't wouldn't shouldn't"
    " i'm i've i'd i'll you're you've it's he's she's they're we're we've we'll there's that's let's"
)
SUBORDINATORS = _words(
    "when while after before although though because since if as once until despite during in unlike"
)
TIMES = _words(
    "year month week weekend morning afternoon evening night spring summer autumn fall winter century decade quarter season time"
    " christmas monday tuesday wednesday thursday friday saturday sunday"
)
UNIQUE = _words(
    "sun moon earth world internet web sky sea ocean future past present economy environment universe government president public media"
    " weather truth law market body brain mind home house day night city country street morning evening rain climate planet atmosphere"
)
"""Nouns that take `the` without having been spoken of."""
SUBJECTS = _words("i you he she it we they there the a an my your his her its our their")
"""What a clause begins with that `that` joins."""
THAT_BEFORE = _words(
    "of about for on to with by from like at than do does did is was would could can will should isn't wasn't doesn't"
    " didn't has have with why how after before without despite regarding considering and but or"
)
"""After these, `that` is a pronoun or stands before its noun."""
THAT_VERBS = _words(
    "is was does doesn't isn't wasn't would will can could might may sounds seems looks means makes works helps happens"
    " has did didn't don't can't won't wouldn't couldn't should"
)
"""Before these, a `that` that begins a sentence is its subject."""
THAT_AFTER = _words("again as in into to for more by with further")
COMPARATIVES = _words(
    "better worse cheaper bigger smaller larger faster slower longer shorter taller higher lower stronger weaker older newer younger"
    " easier harder simpler safer healthier earlier later closer farther further richer warmer colder heavier lighter"
)
REACTIONS = _words(
    "yes yeah yep no nope nah not sure absolutely definitely exactly correct right ok okay thanks thank great wow luckily fortunately"
    " unfortunately indeed probably maybe perhaps certainly nothing none neither both either sadly honestly good nice cool perfect"
    " awesome alright interesting oh ah hmm well true agreed sometimes usually never always mostly mainly"
)
DISCOURSE_NOUNS = _words(
    "answer response reply explanation explanations summary analogy metaphor description information text paragraph sentence statement"
    " story poem essay article passage list point points idea ideas concept suggestion suggestions advice argument example examples"
    " detail details thing things way question topic content message version code function result results step steps part aspect"
    " reason reasons format style approach method process theory case situation scenario problem issue insight output script speech"
)
WANTED = _words("""
    explain describe tell give write list create make compare discuss summarize summarise analyze analyse translate find identify
    convert calculate compute solve generate provide suggest recommend show design outline rewrite rephrase reword restate paraphrase
    reformat format present turn transform condense shorten expand elaborate clarify continue go keep add remove delete replace
    change edit revise improve correct fix check verify confirm repeat try use imagine pretend act consider assume suppose let say
    put name define evaluate assess rank rate sort order choose pick select determine prove simplify factor draw plan help teach
    read look search compose draft prepare produce develop propose offer mention state cite illustrate demonstrate interpret review
    classify categorize extract highlight count estimate predict construct build implement debug test run print return proceed
    start begin stop end avoid include exclude limit apply share answer respond reply ask talk speak do be get take bring
    come see set move call remember forget note adjust adapt modify update combine merge split break arrange organize organise
    structure rearrange convey express reframe reimagine recast retell recount introduce conclude advise guide walk finish complete
    fill guess decide come tailor
""")
IMPERATIVES = WANTED
COMMON = _words("""
    need want like love know think believe feel hear heard mean meant understand understood wonder work works matter matters happen
    happens happened help helps affect affects influence influences impact impacts cause causes relate relates differ differs contribute
    contributes play plays become becomes became seem seems sound sounds appear appears remain involve involves require requires cost costs
    lead leads increase increases reduce reduces prevent prevents protect protects manage handle deal learn live lives thought said told
    made gave found took went got came saw knew left kept began felt brought wrote sat stood lost paid met sent built fell won
    ensure ensures occur occurs exist exists apply applies support supports allow allows enable compared based used called
    going doing making having wondering thinking looking trying planning getting using considering regarding talking asking interested
    curious mind depend depends serve serves benefit benefits face faces fit fits live belong belongs eat drink buy sell spend spent
    travel visit visited watch watched listen enjoy hope prefer plan planned started decided add adds added happen explained
""")
VERBS = (
    COMMON
    | IMPERATIVES
    | {verb + "s" for verb in WANTED}
    | {(verb[:-1] if verb.endswith("e") else verb) + ending for verb in WANTED for ending in ("ed", "ing")}
)
EMPTY = _words(
    "i me my mine myself you your yours yourself we us our ours he him his she her hers it its they them their theirs himself herself"
    " itself themselves this that these those there here who whom whose which what when where why how a an the and or but so if then"
    " than as of at by for with about against between into through during before after above below to from up down in out on off over"
    " under again further once all any both each few more most other others some such no nor not only own same too very just now also"
    " even still yet ever never always often sometimes usually really actually quite rather almost already much many lot lots bit"
    " little less least several enough every one ones two three four five first second third last next another else anything something"
    " everything nothing someone anyone everyone somebody anybody please thanks thank yes no ok okay sure great good nice bad better"
    " best worse worst interesting amazing fascinating cool wow helpful clear right wrong true false correct possible important certain"
    " sure well oh hmm maybe perhaps though although because since while until unless whether however therefore thus instead"
    " like per via within without upon among along across towards toward new different similar specific specifically particular"
    " particularly exactly simply basically generally main way ways thing things kind kinds sort type types example examples part"
    " detail details time times case way anyway together alone today nowadays currently recently later earlier soon ago back away"
    " simple simpler simplest short shorter long longer brief briefly easy easier hard harder big bigger small smaller high higher"
    " low lower able likely available unable aware okay fine um uh hey hi hello regarding considering given despite"
)
