"""What a person can say after a slash: one table, from which help, completion and dispatch are made."""
