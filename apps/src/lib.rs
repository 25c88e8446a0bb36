//! Applications: echo and http, which know only the `App` trait.
