"""`headrace bench`: measures headrace beside its limits, its targets and its peers. Only `learner` needs torch."""
