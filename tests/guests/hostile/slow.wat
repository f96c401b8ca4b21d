;; The slow one: as `echo`, but each event takes it a million turns of a loop, some milliseconds.
;; For whoever needs a stage that a processor is busy with.
(component
  (import "sluicebox:stage/types@0.1.0" (instance $types
    (type $class-shape (enum "retry" "reject"))
    (export "failure-class" (type $class (eq $class-shape)))
    (type $failure-shape (record
      (field "event" u32) (field "class" $class) (field "message" string)))
    (export "failure" (type $failure (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))
  (import "sluicebox:stage/output@0.1.0" (instance $output
    (export "emit" (func (param "frame" (list u8))))))

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
  (core func $emit (canon lower (func $output "emit") (memory $heap "memory")))

  (core module $stage
    (import "heap" "memory" (memory 1))
    (import "host" "emit" (func $emit (param i32 i32)))
    (func (export "handle") (param $frame i32) (param $len i32) (result i32)
      (local $index i32) (local $count i32) (local $event i32) (local $turns i32)
      (local.set $count (i32.load offset=8 (local.get $frame)))
      (local.set $event (i32.add (local.get $frame) (i32.const 16)))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $index) (local.get $count)))
          (i32.store8 offset=4 (local.get $event) (i32.const 0))              ;; kind: data
          (i32.store16 offset=6 (local.get $event) (i32.const 0))             ;; input
          (i32.store16 offset=8 (local.get $event) (i32.const 0))             ;; port
          (i32.store offset=12 (local.get $event) (local.get $index))         ;; cause
          (local.set $turns (i32.const 1000000))
          (loop $turn
            (br_if $turn (local.tee $turns (i32.sub (local.get $turns) (i32.const 1)))))
          (local.set $event (i32.add (local.get $event) (i32.load (local.get $event))))
          (local.set $index (i32.add (local.get $index) (i32.const 1)))
          (br $next)))
      (call $emit (local.get $frame) (local.get $len))
      (i32.const 0)))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance (export "emit" (func $emit))))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))
