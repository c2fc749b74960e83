package lab

import "time"

// Fleets returns all of them, in the order of the table.
func Fleets() []Fleet {
	return []Fleet{steadyFleet(), chain(), fanOut(), sharedCallee(), spike(), slowServer(), frozenServer(), rolling()}
}

// fleet is a load of so many clients at a multiple of what the workers of the bottleneck can do, after a second of half
// of that.
func fleet(name string, n int, load float64, workers int) Fleet {
	capacity := float64(workers) * 100
	return Fleet{Scenario: Scenario{
		Name: name, Length: 12 * time.Second, Judged: 3 * time.Second, Changed: time.Second, Deadline: 500 * ms,
		Mean: 10 * ms, Sizes: exponential, Rate: step(time.Second, capacity/2, load*capacity), Station: pool(workers),
		Tenants: clients(n),
	}}
}

// steadyFleet are ten servers that are asked for ten times what they can do.
func steadyFleet() Fleet {
	f := fleet("10x", 50, 10, 20)
	f.Length = 7 * time.Second
	f.Services = []Service{{Servers: 10, Workers: 2}}
	return f
}

// wide is a service with room for four times what the six workers of a bottleneck can do, that calls others.
func wide(calls ...int) Service { return Service{Servers: 2, Workers: 12, Calls: calls} }

// chain are five services in a row, the last of which is the bottleneck. Each has as much work with a request.
func chain() Fleet {
	f := fleet("chain of 5", 20, 3, 6)
	f.Services = []Service{wide(1), wide(2), wide(3), wide(4), {Servers: 2, Workers: 3}}
	return f
}

// fanOut is a service that calls ten others for each request, which are the bottleneck: all have to answer.
func fanOut() Fleet {
	f := fleet("fan-out of 10", 20, 3, 4)
	f.Services = []Service{{Servers: 2, Workers: 8}}
	for leaf := 1; leaf <= 10; leaf++ {
		f.Services[0].Calls = append(f.Services[0].Calls, leaf)
		f.Services = append(f.Services, Service{Servers: 1, Workers: 4})
	}
	return f
}

// sharedCallee are two services that both call a third one, which is the bottleneck. Half of the clients call the one, half
// the other.
func sharedCallee() Fleet {
	f := fleet("shared callee", 20, 3, 6)
	f.Services = []Service{wide(2), wide(2), {Servers: 2, Workers: 3}}
	f.Entries = []int{0, 1}
	return f
}

// spike are ten seconds of five times what five servers can do. It is judged from its beginning on, and changed by its end.
func spike() Fleet {
	f := fleet("spike of 5x", 25, 0, 10)
	f.Rate = func(now time.Duration) float64 {
		if now >= 2*time.Second && now < 12*time.Second {
			return 5000
		}
		return 700
	}
	f.Length, f.Changed = 17*time.Second, 12*time.Second
	f.Services = []Service{{Servers: 5, Workers: 2}}
	return f
}

// oneOfTen is a fleet of ten servers at .7 of what they can do, of which something happens to one, and ends.
func oneOfTen(name string, happens func(*Pool)) Fleet {
	f := fleet(name, 50, 0, 20)
	f.Rate = constant(1400)
	f.Length, f.Judged, f.Changed = 14*time.Second, 3*time.Second, 10*time.Second
	f.Services = []Service{{Servers: 10, Workers: 2}}
	f.Script = func(hosts *fleetHosts) {
		time.Sleep(3 * time.Second)
		happens(hosts.services[0][0].station)
	}
	return f
}

// slowServer is one of ten that takes ten times as long as the others, for seven seconds.
func slowServer() Fleet {
	return oneOfTen("one slow", func(station *Pool) {
		station.Slow(10)
		time.Sleep(7 * time.Second)
		station.Slow(1)
	})
}

// frozenServer is one of ten that does nothing for seven seconds.
func frozenServer() Fleet {
	return oneOfTen("one frozen", func(station *Pool) { station.Freeze(7 * time.Second) })
}

// rolling restarts ten servers one after the other, each after half a second in which all are there, at .7 of what they
// can do.
func rolling() Fleet {
	f := fleet("rolling restart", 50, 0, 20)
	f.Rate = constant(1400)
	f.Length, f.Judged = 18*time.Second, time.Second
	f.Services = []Service{{Servers: 10, Workers: 2}}
	f.Script = func(hosts *fleetHosts) {
		time.Sleep(time.Second)
		for _, h := range hosts.services[0] {
			h.restart(time.Second)
			time.Sleep(500 * ms)
		}
	}
	return f
}
