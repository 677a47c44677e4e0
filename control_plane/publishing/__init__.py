"""From a change of tables to a revision: the one writer, the documents it derives, their digest and signature."""
