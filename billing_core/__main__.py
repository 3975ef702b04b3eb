"""`python -m billing_core COMMAND`: see CONTRACT section 3. Whatever breaks, import included, is one line."""

import json
import os
import signal
import sys

from billing_core.cli.stopping import SAYS, Stopped, stopping


def start() -> int:
    """Run the command on the command line; returns its exit code. The installed command `billing` is this."""
    if sys.version_info < (3, 11):  # noqa: UP036  (people do start it with what their machine calls python)
        return _fail(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}", 2)
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        _as_utf8()
    try:
        with stopping():
            from billing_core.cli.main import main
        code = main()
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is said and done: what is left may be cut off silently
        return code
    except Stopped as error:
        return _fail(SAYS, error.exit_code)
    except KeyboardInterrupt:
        return _fail(SAYS, 130)
    except ImportError as error:
        what = f"the package {error.name} is not installed" if error.name else str(error)
        return _fail(f"{what}; run `pip install -r requirements.txt`", 2)
    except Exception as error:  # noqa: BLE001 - the last net: nothing of ours could be loaded
        return _fail(f"billing_core could not be loaded: {type(error).__name__}: {error}", 3)


def _as_utf8() -> None:
    """Begin again where names in arguments and variables are UTF-8; what is printed still suits the terminal."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    environment = {"PYTHONIOENCODING": f"{encoding}:backslashreplace", **os.environ}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)  # noqa: S606


def _fail(text: str, code: int) -> int:
    line = " ".join(text.split())
    if sys.stderr is not None:
        sys.stderr.write(("" if text == SAYS else "error: ") + line + "\n")
    if "--json" in sys.argv and sys.stdout is not None:
        sys.stdout.write(json.dumps({"error": line}) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(start())
