"""Every Protocol that an adapter may implement, and the ``Stages`` value.

A port names what the inside needs from the outside, in model nouns. Adapters know the world and nothing of each other;
``bootstrap`` joins the two. One room a subject; whoever uses them imports from here.
"""

from shipworthy.ports.acts import AdminAct as AdminAct
from shipworthy.ports.acts import AdminRecorder as AdminRecorder
from shipworthy.ports.books import CORRECTIONS_MAX as CORRECTIONS_MAX
from shipworthy.ports.books import Books as Books
from shipworthy.ports.books import Corrections as Corrections
from shipworthy.ports.books import Exchanges as Exchanges
from shipworthy.ports.control import ControlPlane as ControlPlane
from shipworthy.ports.edge import REPLAYED_BYTES_MAX as REPLAYED_BYTES_MAX
from shipworthy.ports.edge import Arrival as Arrival
from shipworthy.ports.edge import Opening as Opening
from shipworthy.ports.edge import Repeats as Repeats
from shipworthy.ports.edge import Replay as Replay
from shipworthy.ports.edge import Sink as Sink
from shipworthy.ports.edge import Stored as Stored
from shipworthy.ports.identity import KeyStore as KeyStore
from shipworthy.ports.identity import KeyVerifier as KeyVerifier
from shipworthy.ports.identity import ServiceKey as ServiceKey
from shipworthy.ports.identity import TokenCheck as TokenCheck
from shipworthy.ports.identity import TokenInspector as TokenInspector
from shipworthy.ports.identity import TokenMinter as TokenMinter
from shipworthy.ports.identity import TokenReading as TokenReading
from shipworthy.ports.identity import TokenVerifier as TokenVerifier
from shipworthy.ports.identity import TokenWish as TokenWish
from shipworthy.ports.money import Advance as Advance
from shipworthy.ports.money import Ask as Ask
from shipworthy.ports.money import Draft as Draft
from shipworthy.ports.money import LeaseStore as LeaseStore
from shipworthy.ports.money import Ledger as Ledger
from shipworthy.ports.money import Quotas as Quotas
from shipworthy.ports.providers import Upstream as Upstream
from shipworthy.ports.record import SUSPENDED_S as SUSPENDED_S
from shipworthy.ports.record import Entry as Entry
from shipworthy.ports.record import Expired as Expired
from shipworthy.ports.record import Intent as Intent
from shipworthy.ports.record import Orphan as Orphan
from shipworthy.ports.record import Recorder as Recorder
from shipworthy.ports.record import Stray as Stray
from shipworthy.ports.record import Sweeper as Sweeper
from shipworthy.ports.stages import Live as Live
from shipworthy.ports.stages import Stages as Stages
from shipworthy.ports.watching import AlertLog as AlertLog
from shipworthy.ports.watching import AlertPoster as AlertPoster
from shipworthy.ports.watching import Alerts as Alerts
from shipworthy.ports.watching import EndUsers as EndUsers
from shipworthy.ports.watching import Folded as Folded
from shipworthy.ports.watching import Passed as Passed
from shipworthy.ports.watching import PauseStore as PauseStore
from shipworthy.ports.watching import SpendWatch as SpendWatch
