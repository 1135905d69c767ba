"""The store: SQL is the truth. Tables, migrations, and the queries the rest of the platform uses."""
