"""The warehouse: schema, booking, queries and journal. It knows no provider and no rates."""
