"""The sections of the page, one a module; each is a function from the run's facts to markup."""
