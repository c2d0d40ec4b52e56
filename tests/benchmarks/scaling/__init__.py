# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A replay of the scaling loop: what a rule would do with a given load, without a cluster.

hpa         the controller's algorithm, rule by rule
prometheus  scraped counters, and the PromQL functions that the rules use
service     one pod: chunks that wait for batches, and the limit of streams
traces      streams that come and go
rules       the rules that are compared
replay      all of it over time
recorded    a run of the lab, to hold the replay against
on_lab      the rules on a lab, each run kept and held against its replay
own         a user's own traffic under each preset
report      table, JSON, picture
page        one draw of the streams under each rule, as the page that compares load tests
"""

import sys
from pathlib import Path

# The rules of the product are part of what is replayed; the collection is found by its name.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "collections"))
