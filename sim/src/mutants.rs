//! Planted bugs: see the verb `mutants`.
