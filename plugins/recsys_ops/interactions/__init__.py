"""From history events to confidence-weighted user × item matrices."""
