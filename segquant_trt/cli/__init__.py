"""The command line: one short file per command, nothing imported before it is needed."""
