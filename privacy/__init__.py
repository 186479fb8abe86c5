"""Keep records private at home: vault, keys, predicates, grants, the decision, audit."""
