"""Your own series: in .ts files, tables and arrays (see `nas.data.sequences.sequences`)."""
