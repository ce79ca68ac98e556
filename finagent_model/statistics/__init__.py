"""How far a result may be chance: nothing here knows desks, runs or files."""
