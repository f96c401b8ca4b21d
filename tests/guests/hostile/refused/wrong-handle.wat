;; Exports `handle`, but with the type of neither world.
(component
  (core module $stage
    (func (export "handle") (param i32) (result i32) (local.get 0)))
  (core instance $stage (instantiate $stage))
  (func (export "handle") (param "frame" u32) (result u32)
    (canon lift (core func $stage "handle"))))
