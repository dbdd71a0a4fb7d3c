"""`headrace bench`: measures headrace beside its limits, its targets and its peers. Needs neither torch nor ray."""
