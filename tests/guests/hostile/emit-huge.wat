;; Emits nearly a megabyte at a time, without end. Each frame is good; the sum must be limited, and
;; the host must not keep what it will never hand on.
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
    (memory (export "memory") 18)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (local $missing i32)
      (local.set $missing (i32.sub
        (i32.add (i32.const 17)
          (i32.shr_u (i32.add (local.get 3) (i32.const 65535)) (i32.const 16)))
        (memory.size)))
      (if (i32.gt_s (local.get $missing) (i32.const 0))
        (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then unreachable))))
      (i32.const 1114112)))
  (core instance $heap (instantiate $heap))
  (core func $emit (canon lower (func $output "emit") (memory $heap "memory")))

  (core module $stage
    (import "heap" "memory" (memory 1))
    (import "host" "emit" (func $emit (param i32 i32)))
    ;; A frame of one event of kind data with cause 0 and a payload of 983,040 bytes: magic,
    ;; format 1, minimum reader 1, count 1, length 983,088; size 983,072, cause 0, payload length.
    (data (i32.const 1024) "SBXF\01\00\01\00\01\00\00\00\30\00\0f\00")
    (data (i32.const 1040) "\20\00\0f\00")
    (data (i32.const 1064) "\00\00\0f\00")
    (func (export "handle") (param i32 i32) (result i32)
      (loop $for-ever
        (call $emit (i32.const 1024) (i32.const 983088))
        (br $for-ever))
      unreachable))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance (export "emit" (func $emit))))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))
