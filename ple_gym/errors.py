"""The errors that `ple_gym` raises for what a user can put right, as one tree.

    PleError                  the root; its message is one line: what is wrong, its value, and what is allowed
    ├── ScenarioError         a scenario, a parameter of one, or the file of one (ValueError)
    ├── PolicyError           a policy: an unknown name, a damaged file, an agent that does what it may not (ValueError)
    │   └── RuleFault         in `ple_gym.lanes`: a rule has raised something, or answered what is not legal
    ├── ArgumentError         another argument of a function: seeds, threads, an option, an action (ValueError)
    ├── UsageError            a command line
    ├── RealityError          the reality check: it cannot be made on this machine, or a file with runs is damaged
    ├── TraceError            a file of events: one that is read is none, or one cannot hold what is to be written
    ├── VectorEnvError        in `ple_gym.testing`: a vector environment fails a check (AssertionError)
    ├── AgentError            in `agents.common`, of a checkout: a training cannot begin, go on or be kept
    └── TableError            in `experiments`, of a checkout: a results table is damaged (ValueError)

`except PleError` catches them all. Beside these there are only Python's own errors: RuntimeError where a call comes at
a wrong time (a step before the first reset, a scenario in which nothing can ever be decided), TypeError where a call
does not fit its function, ValueError where a saved state does not fit, ModuleNotFoundError where an extra is not
installed, and OSError where a file cannot be written.

Examples:
    >>> issubclass(ple_gym.ScenarioError, ple_gym.errors.PleError)
    True
"""


class PleError(Exception):
    """The user can put this right; the message says how, in one line.

    Examples:
        >>> try:
        ...     ple_gym.compare("Storm", ["kvm"], seeds="5:1")
        ... except ple_gym.PleError as error:
        ...     print(type(error).__name__)
        ArgumentError
    """


class ScenarioError(PleError, ValueError):
    """A scenario is wrong: the message has the dotted name of the parameter, its value, and what is allowed.

    Examples:
        >>> ple_gym.load("Storm").with_overrides({"host.pcpus": 0})
        Traceback (most recent call last):
        ple_gym.errors.ScenarioError: host.pcpus = 0: must be 1..256
    """


class PolicyError(PleError, ValueError):
    """A policy is unknown, its file is damaged, it does not fit the scenario, or an agent breaks its promises.

    Examples:
        >>> ple_gym.simulate("Storm", "kwm")
        Traceback (most recent call last):
        ple_gym.errors.PolicyError: unknown policy 'kwm'; did you mean 'kvm'? known: ...
    """


class ArgumentError(PleError, ValueError):
    """An argument that is neither a scenario nor a policy is wrong: seeds, threads, an option, an action.

    Examples:
        >>> ple_gym.PleEnv("Storm", reward="speed")
        Traceback (most recent call last):
        ple_gym.errors.ArgumentError: unknown reward 'speed'; known: waste, time, fair, response
    """


class UsageError(PleError):
    """A command line stands for no command."""


class RealityError(PleError):
    """The reality check cannot be made on this machine, or what was measured is damaged."""


class TraceError(PleError, ValueError):
    """A file that should hold a trace holds none, or no such file can be written."""
