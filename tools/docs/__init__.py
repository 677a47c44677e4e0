"""What the documentation is made from: pictures of flows, reference pages."""
