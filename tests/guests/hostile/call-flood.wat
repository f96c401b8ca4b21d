;; Asks the host for a state slot and a setting in turn, without end. Cheap calls, but each is host
;; work that must count.
(component
  (import "sluicebox:stage/types@0.1.0" (instance $types
    (type $class-shape (enum "retry" "reject"))
    (export "failure-class" (type $class (eq $class-shape)))
    (type $failure-shape (record
      (field "event" u32) (field "class" $class) (field "message" string)))
    (export "failure" (type $failure (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))
  (import "sluicebox:stage/state@0.1.0" (instance $state
    (export "get" (func
      (param "event" u32) (param "slot" string) (result (option (list u8)))))
    (export "put" (func
      (param "event" u32) (param "slot" string) (param "value" (list u8))
      (result (result (error string)))))
    (export "batch" (func (param "operations" (list u8)) (result (list u8))))))
  (import "sluicebox:stage/config@0.1.0" (instance $config
    (export "get" (func (param "name" string) (result (option string))))))

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
  (core func $state-get (canon lower (func $state "get")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))
  (core func $config-get (canon lower (func $config "get")
    (memory $heap "memory") (realloc (func $heap "cabi_realloc"))))

  (core module $stage
    (import "heap" "memory" (memory 1))
    (import "host" "state-get" (func $state-get (param i32 i32 i32 i32)))
    (import "host" "config-get" (func $config-get (param i32 i32 i32)))
    (data (i32.const 1024) "slot")
    (func (export "handle") (param i32 i32) (result i32)
      (loop $for-ever
        (call $state-get (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 16))
        (call $config-get (i32.const 1024) (i32.const 4) (i32.const 16))
        (br $for-ever))
      unreachable))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))
    (with "host" (instance
      (export "state-get" (func $state-get))
      (export "config-get" (func $config-get))))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))
