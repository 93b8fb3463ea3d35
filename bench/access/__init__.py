"""The only place that grants access: builds the attacker's and the defender's view of a trial."""
