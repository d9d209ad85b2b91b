"""Commands: durable intentions with steps, run by any node and adopted by a survivor."""
