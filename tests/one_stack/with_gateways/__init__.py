"""Gateways before the nodes of the stack. The folder comes last by its name: these load the stack for the others."""
