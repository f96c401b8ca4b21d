;; Traps on every seventh event in the life of an instance, and echoes the others. Which event it is
;; depends on what the instance saw before, so no event is to blame. Its snapshot is how many those
;; were, in four bytes, and it takes no other.
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
    (global $seen (mut i32) (i32.const 0))
    (func (export "handle") (param $frame i32) (param $len i32) (result i32)
      (local $index i32) (local $count i32) (local $event i32)
      (local.set $count (i32.load offset=8 (local.get $frame)))
      (local.set $event (i32.add (local.get $frame) (i32.const 16)))
      (block $done
        (loop $next
          (br_if $done (i32.ge_u (local.get $index) (local.get $count)))
          (global.set $seen (i32.add (global.get $seen) (i32.const 1)))
          (if (i32.eqz (i32.rem_u (global.get $seen) (i32.const 7))) (then unreachable))
          (i32.store8 offset=4 (local.get $event) (i32.const 0))              ;; kind: data
          (i32.store16 offset=6 (local.get $event) (i32.const 0))             ;; input
          (i32.store16 offset=8 (local.get $event) (i32.const 0))             ;; port
          (i32.store offset=12 (local.get $event) (local.get $index))         ;; cause
          (local.set $event (i32.add (local.get $event) (i32.load (local.get $event))))
          (local.set $index (i32.add (local.get $index) (i32.const 1)))
          (br $next)))
      (call $emit (local.get $frame) (local.get $len))
      (i32.const 0))
    ;; Of a result: 0 for ok, then a list or nothing; or 1, then a string.
    (data (i32.const 256) "four bytes are wanted")
    (func (export "take") (result i32)
      (i32.store (i32.const 128) (i32.const 0))
      (i32.store (i32.const 132) (i32.const 160))
      (i32.store (i32.const 136) (i32.const 4))
      (i32.store (i32.const 160) (global.get $seen))
      (i32.const 128))
    (func (export "restore") (param $at i32) (param $len i32) (result i32)
      (i32.store (i32.const 128) (i32.ne (local.get $len) (i32.const 4)))
      (i32.store (i32.const 132) (i32.const 256))
      (i32.store (i32.const 136) (i32.const 21))
      (if (i32.eq (local.get $len) (i32.const 4))
        (then (global.set $seen (i32.load (local.get $at)))))
      (i32.const 128)))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance (export "emit" (func $emit))))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (func $take (result (result (list u8) (error string)))
    (canon lift (core func $stage "take") (memory $heap "memory")))
  (func $restore (param "snapshot" (list u8)) (result (result (error string)))
    (canon lift (core func $stage "restore")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (instance $snapshot (export "take" (func $take)) (export "restore" (func $restore)))
  (export "sluicebox:stage/snapshot@0.1.0" (instance $snapshot)))
