;; Writes lines of 4 KiB to the log, without end.
(component
  (import "sluicebox:stage/types@0.1.0" (instance $types
    (type $class-shape (enum "retry" "reject"))
    (export "failure-class" (type $class (eq $class-shape)))
    (type $failure-shape (record
      (field "event" u32) (field "class" $class) (field "message" string)))
    (export "failure" (type $failure (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))
  (import "sluicebox:stage/log@0.1.0" (instance $log
    (type $level-shape (enum "debug" "info" "warn" "error"))
    (export "level" (type $level (eq $level-shape)))
    (export "write" (func (param "level" $level) (param "message" string)))))

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
  (core func $log (canon lower (func $log "write") (memory $heap "memory")))

  (core module $stage
    (import "heap" "memory" (memory 1))
    (import "host" "log" (func $log (param i32 i32 i32)))
    (func (export "handle") (param i32 i32) (result i32)
      (memory.fill (i32.const 1024) (i32.const 0x61) (i32.const 4096))
      (loop $for-ever
        (call $log (i32.const 3) (i32.const 1024) (i32.const 4096))
        (br $for-ever))
      unreachable))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance (export "log" (func $log))))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))
