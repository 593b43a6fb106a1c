package ikev1

import "time"

// Diffie-Hellman is what a small board can be brought to its knees with: modp2048 takes a slow core a tenth of a second.
// So its work is admitted: what authenticated peers and our own calls need goes first; strangers wait in the order in which
// they came, as long as the measured cost of what is before them promises an answer while they still listen. Who is not
// admitted is not answered, and tries again. What a stranger has given up meanwhile is not computed at all.

const (
	patience   = 20 * time.Second // how long a stranger's work may wait: clients give up after 30 s or more
	pumpAgain  = 50 * time.Millisecond
	manyWorker = 1 << 16 // no limit of our own where Env does not tell how many there are
)

// job is work for a worker.
type job struct {
	work    func() (done func(now time.Time))
	group   Group
	alive   func() bool         // nil for what is always wanted
	refused func(now time.Time) // it waited too long
	until   time.Time
	begun   time.Time
}

// admission is the queue before the workers.
type admission struct {
	e         *Engine
	urgent    []*job
	strangers []*job
	waiting   map[Group]int           // strangers' jobs by group
	cost      map[Group]time.Duration // as measured, a moving mean
	running   int
	timer     timer
}

func newAdmission(e *Engine) *admission {
	a := &admission{e: e, waiting: make(map[Group]int), cost: make(map[Group]time.Duration)}
	a.timer.fire = a.pump
	return a
}

func (a *admission) workers() int {
	if n := a.e.env.Workers; n > 0 {
		return n
	}
	return manyWorker
}

// offload runs work that an authenticated peer or a call of ours needs on a worker, and done back here, unless the engine
// has been closed meanwhile. False means that the workers are busy.
func (e *Engine) offload(now time.Time, work func() (done func(now time.Time))) bool {
	return e.admission.submit(now, &job{work: work})
}

// submit starts a job or queues it; false if there is no hope for it in time.
func (a *admission) submit(now time.Time, j *job) bool {
	if a.e.env.Offload == nil {
		j.work()(now)
		return true
	}
	stranger := j.alive != nil
	if len(a.urgent) == 0 && (!stranger || len(a.strangers) == 0) && a.running < a.workers() {
		return a.start(now, j)
	}
	if !stranger {
		if len(a.urgent) >= maxClients {
			return false
		}
		a.urgent = append(a.urgent, j)
		return true
	}
	if len(a.strangers) >= a.e.cfg.HalfOpen || a.wait() > patience {
		return false
	}
	j.until = now.Add(patience + patience/2) // an estimate can be wrong
	a.strangers = append(a.strangers, j)
	a.waiting[j.group]++
	return true
}

// wait is how long the last of the strangers will have to wait, by what such work took so far.
func (a *admission) wait() (d time.Duration) {
	for g, n := range a.waiting {
		d += time.Duration(n) * a.cost[g]
	}
	return d / time.Duration(a.workers())
}

// start gives a job to a worker.
func (a *admission) start(now time.Time, j *job) bool {
	j.begun = now
	a.running++
	ok := a.e.env.Offload(func() func(time.Time) {
		done := j.work()
		return func(now time.Time) {
			a.running--
			if a.e.closed {
				return
			}
			a.measure(j, now.Sub(j.begun))
			a.e.at = now
			done(now)
			a.pump(now)
			a.e.flush()
		}
	})
	if !ok {
		a.running--
	}
	return ok
}

// measure learns what the work of a group takes.
func (a *admission) measure(j *job, d time.Duration) {
	if j.group == 0 || d < 0 {
		return
	}
	if old, ok := a.cost[j.group]; ok {
		d = old + (d-old)/8
	}
	a.cost[j.group] = d
}

// pump keeps the workers busy.
func (a *admission) pump(now time.Time) {
	a.e.timers.stop(&a.timer)
	for a.running < a.workers() {
		j := a.next(now)
		if j == nil {
			return
		}
		if !a.start(now, j) {
			// The workers are busy with what is not ours: nothing of ours will wake us.
			if j.alive == nil {
				a.urgent = append([]*job{j}, a.urgent...)
			} else {
				a.strangers = append([]*job{j}, a.strangers...)
				a.waiting[j.group]++
			}
			a.e.timers.set(&a.timer, now.Add(pumpAgain))
			return
		}
	}
}

// next takes the job whose turn it is, nil if there is none.
func (a *admission) next(now time.Time) *job {
	if len(a.urgent) > 0 {
		j := a.urgent[0]
		a.urgent = a.urgent[1:]
		return j
	}
	for len(a.strangers) > 0 {
		j := a.strangers[0]
		a.strangers = a.strangers[1:]
		if len(a.strangers) == 0 {
			a.strangers = nil // lets go of what is behind it
		}
		if a.waiting[j.group]--; a.waiting[j.group] == 0 {
			delete(a.waiting, j.group)
		}
		switch {
		case !j.alive():
		case now.After(j.until):
			j.refused(now)
		default:
			return j
		}
	}
	return nil
}
