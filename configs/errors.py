"""The one error that the command line turns into a single line. Knows nothing of what can fail."""


class DescantError(Exception):
    """Something that a user can mend.

    Each boundary that can fail defines its own subclass in the file that raises it. The message says
    what happened and then what to do, in one line. `exit_code` is what the process ends with: 2 for the
    user's mistakes, 1 for work that had to stop.
    """

    exit_code = 2
