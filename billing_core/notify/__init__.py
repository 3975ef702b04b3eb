"""Messages on their way to people: the outbox, its receivers, and how far each message got."""
