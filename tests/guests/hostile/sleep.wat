;; Sleeps for a year, properly: it waits on the clock and burns nothing. Must end at the call's
;; deadline.
(component $component
  (import "sluicebox:stage/types@0.1.0" (instance $types
    (type $class-shape (enum "retry" "reject"))
    (export "failure-class" (type $class (eq $class-shape)))
    (type $failure-shape (record
      (field "event" u32) (field "class" $class) (field "message" string)))
    (export "failure" (type $failure (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer $component $pollable (type $outer))
    (export "pollable" (type $pollable (eq $outer)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))

  ;; The memory. The frame is put behind the first page, always at the same place.
  (core module $heap
    (memory (export "memory") 2)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (local $missing i32)
      (local.set $missing (i32.sub
        (i32.add (i32.const 1) (i32.shr_u (i32.add (local.get 3) (i32.const 65535)) (i32.const 16)))
        (memory.size)))
      (if (i32.gt_s (local.get $missing) (i32.const 0))
        (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then unreachable))))
      (i32.const 65536)))
  (core instance $heap (instantiate $heap))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $block (canon lower (func $poll "[method]pollable.block")))

  (core module $stage
    (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "host" "block" (func $block (param i32)))
    (func (export "handle") (param i32 i32) (result i32)
      (call $block (call $subscribe (i64.const 31536000000000000)))
      (i32.const 0)))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance (export "subscribe" (func $subscribe)) (export "block" (func $block))))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))
