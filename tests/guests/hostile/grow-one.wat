;; Takes all memory it can get, 4 MiB and then 64 KiB at a time, and writes to every 4 KiB of it, so
;; that it is really there and costs hardly any fuel. Then it succeeds, and emits nothing.
(component
  (import "sluicebox:stage/types@0.1.0" (instance $types
    (type $class-shape (enum "retry" "reject"))
    (export "failure-class" (type $class (eq $class-shape)))
    (type $failure-shape (record
      (field "event" u32) (field "class" $class) (field "message" string)))
    (export "failure" (type $failure (eq $failure-shape)))))
  (alias export $types "failure" (type $failure))

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

  (core module $stage
    (import "heap" "memory" (memory 1))
    ;; 64 KiB are 16 pages of the machine.
    (func $write-page (param $at i32)
      (local $left i32)
      (local.set $left (i32.const 16))
      (loop $next
        (i32.store8 (local.get $at) (i32.const 0xA5))
        (local.set $at (i32.add (local.get $at) (i32.const 4096)))
        (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
    (func (export "handle") (param i32 i32) (result i32)
      (local $page i32)
      (loop $more
        (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1))))
      (loop $more
        (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
      ;; A write takes the page it is in from the machine. The first page is ours already.
      (loop $next
        (local.set $page (i32.add (local.get $page) (i32.const 1)))
        (if (i32.lt_u (local.get $page) (memory.size))
          (then
            (call $write-page (i32.mul (local.get $page) (i32.const 65536)))
            (br $next))))
      (i32.const 0)))
  (core instance $stage (instantiate $stage
    (with "heap" (instance $heap))))

  (func (export "handle") (param "frame" (list u8)) (result (list $failure))
    (canon lift (core func $stage "handle")
      (memory $heap "memory") (realloc (func $heap "cabi_realloc")))))
