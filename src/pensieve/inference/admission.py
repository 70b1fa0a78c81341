"""Whether a sequence may run, from what it costs and what memory is left: values in, decisions out. No engine here."""
