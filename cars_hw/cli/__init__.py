"""The command line: thin over the library, a module a command, heavy imports inside the commands."""
