;; A core module and not a component: what a compiler gives before the last step.
(module
  (memory (export "memory") 1)
  (func (export "handle") (param i32 i32) (result i32)
    (i32.const 0)))
