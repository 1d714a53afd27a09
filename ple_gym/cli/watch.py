"""`ple-gym watch`: a run in the terminal, slowed down: who runs where, and who waits for whom."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ple_gym.scenario.model import Scenario
from ple_gym.traces import events
from ple_gym.traces.events import IDLE, NOISE, Ints
from ple_gym.traces.recording import record_pieces

FRAMES_PER_S = 10
MOST_ROWS = 12  # of VMs, and of locks
STYLES = {"runs": "green", "spins": "yellow", "holds": "bold blue", "off": "bold red", "host": "dim", "idle": "dim"}


class Scene:
    """What is seen of a run, event after event."""

    def __init__(self, scenario: Scenario) -> None:
        self.hz = scenario.host.tsc_hz
        self.vms = list(scenario.vms())
        self.vm_of = np.repeat(np.arange(len(self.vms)), [vm.vcpus for vm in scenario.vms().values()]).tolist()
        self.on = [IDLE] * scenario.host.pcpus
        self.now = 0
        self.wants: dict[int, int] = {}
        self.lines: dict[int, dict[int, None]] = defaultdict(dict)  # as ordered sets
        self.owners: dict[int, dict[int, None]] = defaultdict(dict)
        self.exits, self.taken = [0] * len(self.vms), [0] * len(self.vms)

    def take(self, now: int, kind: int, pcpu: int, vcpu: int, lock: int) -> None:
        """Let an event happen."""
        self.now = max(self.now, now)
        if kind == events.RUN:
            self.on[pcpu] = vcpu
        elif kind in (events.STOP, events.NOISE_END):
            self.on[pcpu] = IDLE
        elif kind == events.NOISE_BEGIN:
            self.on[pcpu] = NOISE
        elif kind in (events.TRY, events.IPI, events.PLE):
            self.exits[self.vm_of[vcpu]] += kind == events.PLE
            self.wants[vcpu] = lock
            self.lines[lock].setdefault(vcpu)
        elif kind in (events.ACQUIRE, events.ACK):
            self.wants.pop(vcpu, None)
            self.lines[lock].pop(vcpu, None)
            if kind == events.ACQUIRE:
                self.taken[self.vm_of[vcpu]] += 1
                self.owners[lock][vcpu] = None
        elif kind == events.RELEASE:
            self.owners[lock].pop(vcpu, None)

    def view(self) -> Group:
        """The picture of now."""
        held = {vcpu: lock for lock, owners in self.owners.items() for vcpu in owners}
        where = {vcpu: pcpu for pcpu, vcpu in enumerate(self.on) if vcpu >= 0}
        vms = Table("VM", "on pCPUs", "spin", "wait off", "hold off", "locks taken", "exits", box=None, pad_edge=False)
        for vm in sorted(range(len(self.vms)), key=lambda vm: -self.exits[vm])[:MOST_ROWS]:
            on, wants, holds = ({vcpu for vcpu in some if self.vm_of[vcpu] == vm} for some in (where, self.wants, held))
            counts = (len(on), len(on & wants), len(wants - on), len(holds - on), self.taken[vm], self.exits[vm])
            vms.add_row(self.vms[vm], *(f"{one:,}" for one in counts))
        locks = Table("lock", "holder", "first in line", "wait", box=None, pad_edge=False)
        used = [lock for lock, line in self.lines.items() if lock >= 0 and (line or self.owners[lock])]
        for lock in sorted(used, key=lambda lock: -len(self.lines[lock]))[:MOST_ROWS]:
            who = (_first(self.owners[lock], where, "off"), _first(self.lines[lock], where, "idle"))
            locks.add_row(str(lock), *who, str(len(self.lines[lock])))
        head = f"{self.now * 1e3 / self.hz:,.3f} ms simulated, {sum(self.exits):,} exits"
        pcpus = Columns([self._pcpu(pcpu, who, held) for pcpu, who in enumerate(self.on)], padding=(0, 2))
        return Group(Text(head, "bold"), pcpus, vms, locks)

    def _pcpu(self, pcpu: int, who: int, held: dict[int, int]) -> Text:
        does = "spins" if who in self.wants else "holds" if who in held else "runs"
        does = {IDLE: "idle", NOISE: "host"}.get(who, does)
        lock = self.wants.get(who, held.get(who, -1))
        return Text(f"P{pcpu} {f'vCPU {who} ' * (who >= 0)}{does}{f' {lock}' * (lock >= 0)}", STYLES[does])


def _first(some: dict[int, None], where: dict[int, int], off: str) -> Text:
    """The first of some vCPUs, and where it is."""
    vcpu = next(iter(some), -1)
    return Text(f"{vcpu} on P{where[vcpu]}") if vcpu in where else Text(f"{vcpu} off" if some else "", STYLES[off])


def watch(scenario: Scenario, policy: str, seed: int, start: int, stop: int, speed: float, console: Console) -> None:
    """Show the cycles start..stop-1 of a run, `speed` simulated ms in a second; what is no terminal gets the end."""
    scene, began = Scene(scenario), 0.0

    def play(piece: Ints) -> None:
        nonlocal began
        times = piece[:, 0]
        for event in piece[times < start].tolist():
            scene.take(*event)
        piece = piece[(times >= start) & (times < stop)]
        while len(piece):
            began = began or time.monotonic()
            due = start + round((time.monotonic() - began) * speed / 1e3 * scene.hz)
            count = int(np.searchsorted(piece[:, 0], due)) if console.is_terminal else len(piece)
            for event in piece[:count].tolist():
                scene.take(*event)
            piece = piece[count:]
            if console.is_terminal:
                scene.now = due if len(piece) else scene.now
                live.update(scene.view(), refresh=True)
                time.sleep(1 / FRAMES_PER_S)

    with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
        record_pieces(scenario, policy, seed, play, stop=stop)
    if not console.is_terminal:
        console.print(scene.view())
