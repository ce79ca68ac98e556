"""Plug-ins that ship with the package. The core imports none of them; it looks their names up."""
