"""One wing a subcommand, each with one plan: command, subject, measure, pictures, page."""
