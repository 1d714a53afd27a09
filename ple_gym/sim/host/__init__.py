"""The host's schedulers. A scheduler is one file with a `HOST` (`sim/seam.py`), named in `scenario/schedulers.py`.

What is no scheduler's (entering and leaving a vCPU, context switches, host noise) lies beneath, in `sim/dispatch.py`,
which calls the hooks. `s` is the lane, `p` and `q` are pCPUs, `v` is a vCPU, `t` the time in cycles.

* `start(s, key)`: set up the records. `key` is that of the host's stream of draws. Set the timers that the scheduler
  has: `tick_at` of each pCPU, the world's `period_at`. [Xen: init_pdata]
* `charge(s, p, t)`: account for the time that p's vCPU has run. [Xen: burn_credits; Linux: update_curr]
* `holds(s, p, t)`: say whether p's vCPU must go on all the same; then also until when, in `pcpu.slice_end`. [Xen's rate
  limit]
* `polls(s, p, v, t)`: say whether p waits, busy, for v, which has gone to sleep there; then also until when, in
  `pcpu.slice_end`; never where p is POLLING already. Most never do. [Linux: kvm_vcpu_halt]
* `put_prev(s, p, v, t, stays)`: take v back, which leaves its pCPU; if it stays runnable, queue it on p. [Linux:
  put_prev_task]
* `switched(s, p, t)`: do what must wait until the switch on p is done. Most have nothing to do. [Xen: context_saved]
* `pick_next(s, p, t)`: take whom p runs next out of its queue and return it, or NONE. [Xen: do_schedule; Linux:
  pick_next_task]
* `set_next(s, p, v, t)`: note that p runs v from now on, and return when its slice ends. [Linux: set_next_task]
* `dequeue(s, p, v)`: take v out of p's queue, because somebody else has decided to run it. [Linux: dequeue_task]
* `yield_now(s, p, v)`: note that v, which runs on p, yields; `put_prev` or `holds` follows. [Linux: yield_task]
* `yield_to(s, p, q, v, t)`: favour v, which is queued on q, because p's vCPU yields to it, and say whether it may: if
  so, `yield_now` follows, else p's vCPU is resumed. [Linux: yield_to_task]
* `kick_yields(s, p, v, t)`: say whether p's vCPU, which has kicked v, yields to it; most never do. [kvm_sched_yield]
* `wake(s, v, t)`: queue v, which has become runnable, and ask pCPUs to reschedule. [Linux: select_task_rq,
  wakeup_preempt]
* `migrate(s, v, t)`: queue v elsewhere, which was marked `moving` and has left its pCPU. [Linux: active balancing]
* `tick(s, p, t)`: serve p's tick, and say whether p must reschedule. [Linux: task_tick]
* `period(s)`: serve the world's `period_at`, a timer that no pCPU owns. [Xen: csched_acct]
* `protected_until(s, p)`: say until when a job of the host that wakes may not preempt p's vCPU. [Xen's rate limit]
* `queue_of(s, p)`: name the first of the pCPUs that share p's queue; most have one each.
* `sound(s)`: say whether the scheduler's records can be those of a run (sim/soundness.py).

A hook may call what is in `sim/dispatch.py`, `calendar.request`, and the helpers of `runqueue.py`. What a scheduler
must remember it keeps in records of its own: `s.host_par[0]`, `s.host_world[0]`, `s.host_vm[m]`, `s.host_pcpu[p]`,
`s.host_vcpu[v]`, after which come as many more of that kind as `further(scenario)` says.
"""
