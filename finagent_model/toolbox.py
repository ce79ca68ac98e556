class Toolbox:
    def __init__(self, *a): pass
