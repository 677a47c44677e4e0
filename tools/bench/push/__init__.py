"""How quickly a change reaches many nodes, and what a node needs to hold many clients."""
