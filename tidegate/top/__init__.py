"""`tidegate top`: regions, nodes, rates, denials, lag and the busiest clients, live, over the admin API."""
