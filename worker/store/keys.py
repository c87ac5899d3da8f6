"""Every key of the store: its name, type and life. The scripts get their names from here too.

All keys share the hash tag `{namespace}`. Times in keys are milliseconds of Redis's clock.

| key           | type   | holds                                                                        | until    |
|---------------|--------|------------------------------------------------------------------------------|----------|
| j:JOB         | hash   | the job (fields.py); values under 65 bytes, so that it stays small           | purge    |
| s:JOB         | string | params, targets, metadata as JSON; deflated when large                       | purge    |
| r:JOB         | string | the result as JSON; deflated when large                                      | purge    |
| t:JOB         | list   | the timeline: "milliseconds event detail"                                    | purge    |
| e:JOB         | string | the job's error as JSON                                                      | purge    |
| d:JOB#N       | hash   | delivery N (fields.py)                                                       | purge    |
| al:JOB        | string | the job that this id means: an idempotency key was used again                | retention|
| rv:JOB        | string | the error of a job whose id was revoked before it came: it is then cancelled  | TTL      |
| as:JOB        | set    | the ids that mean this job                                                   | purge    |
| k:KEY         | string | job id of an idempotency key; of a tenant's job it is tk:TENANT/KEY          | purge    |
| due:LANE      | zset   | job or delivery id -> when it is due; below 0 its place in a tenant's line    |          |
| lines:LANE    | hash   | tenant -> number of its line in a submit lane; /lines, /places: counters      | empty    |
| turns:LANE    | list   | the tenants that have a line, whose turn is next first                        | empty    |
| fair:LANE     | hash   | turns of a submit lane in release 0.2.0                                       | empty    |
| leased:LANE   | zset   | job or delivery id -> when its lease ends                                    |          |
| lanes         | zset   | lane -> when somebody must look at it next                                   |          |
| adm:SCOPE     | zset   | delivery id -> when it was admitted to its lane (record/admission.lua)       | empty    |
| bl:SCOPE      | zset   | delivery id -> when it is due; it waits to be admitted                       | empty    |
| bl-hosts:SCOPE | zset   | host (empty but for webhooks) -> when it has its next turn                   | empty    |
| backlogs      | zset   | scope -> when somebody must look at its backlog next                         |          |
| backlog       | zset   | the deliveries of all backlogs: id -> when it is due                         |          |
| handlers      | zset   | a handler function's name (empty: none) -> when a worker last had it         |          |
| handlers-early | zset   | a name that jobs had before any worker said what it has -> when              |          |
| ix:PROV:STATE | zset   | job id -> when it was created: one entry a job, for listing                  |          |
| tn:TENANT     | zset   | job id -> when it was created: the jobs of one tenant                        |          |
| xid:PROV:HASH | hash   | rest of an external id's hash -> the job that has the id                     | purge    |
| catch-up      | string | how far stored jobs of a release before are up to date; `done` for an hour   |          |
| use:TENANT    | hash   | what a tenant's jobs take (fields.py), for its quotas                        | purge    |
| providers     | set    | providers that have jobs                                                     |          |
| deadlines     | zset   | open job -> its deadline, or when somebody must look at it next after that     |          |
| closed        | zset   | job id -> when it is purged                                                  |          |
| dead          | zset   | delivery id -> when it died                                                  |          |
| took:PROV:OP  | list   | how long the last jobs that succeeded took, newest first, capped             |          |
| rate:GROUP    | zset   | request -> when it was sent, for one rate window; GROUP is a provider        |          |
| gov:GROUP     | hash   | the governor's state (fields.py)                                             |          |
| token:NAME    | string | an access token, with its TTL; `lock:NAME`: who renews it                    | TTL      |
| access        | hash   | API keys: id -> JSON with the hash of its secret                             |          |
| keys-limited  | hash   | the same of keys with an end, networks or the scope `keys`: 0.2.0 must refuse them |       |
| w:JOB         | list   | webhooks, oldest first, capped: "milliseconds " and msgpack, deflated if large | purge  |
| w-unknown     | list   | webhooks for jobs that are gone, the same, newest last, capped               |          |
| w-secret      | string | 32 random bytes that make the tokens in webhook URLs                         |          |
| used          | hash   | API keys: id -> second in which it was used, a minute old at most             |          |
| session:HASH  | string | the API key that a login to the pages was made with                          | TTL      |
| endpoints     | hash   | disabled receivers of webhooks: [TENANT ]URL without query -> JSON: why …    |          |
| stats         | hash   | what was counted since the store began, for /metrics: "what:label:…" -> number  |          |
| stat:MINUTE   | hash   | what was counted in that minute since 1970, and gauges, for charts           | 25 hours |
| in:leased     | zset   | taken-in message -> when its lease ends; in:messages hash: its bytes         |          |
| in:takes      | hash   | taken-in message -> how often its lease has ended without a job                |          |
| in:refused    | list   | messages without a usable id, with the reason, newest first, capped          |          |
| orphans       | list   | answers without a job, newest first: "milliseconds " and JSON, capped        |          |
| in:seq        | string | counter that names taken-in messages                                         |          |
| probe         | string | nothing: it is written and deleted in one script, to see whether Redis writes | at once |
| copied        | string | nothing: what is promised is followed by a write that `WAIT` waits for          |          |
| acts:TRAIL    | list   | what persons did, newest first, capped: "milliseconds job tenant JSON"        | TTL      |
| acts-of:JOB   | list   | what persons did to one job, the same                                         | purge    |
| trails        | set    | the trails of acts: of operators, of strangers, of each tenant                |          |
| noted:JOB     | channel | a word for each entry of the job's timeline, as it is written               |          |

A SCOPE is TENANT/KIND, the deliveries that share room; in adm: and bl: a webhook's host follows after a space.

The fields of the hashes j:, d:, gov: and use: are in fields.py.
"""

_PREFIXES = {
    "JOB": "j:",
    "SPEC": "s:",
    "RESULT": "r:",
    "TIMELINE": "t:",
    "ERROR": "e:",
    "DELIVERY": "d:",
    "ALIAS": "al:",
    "ALIASES": "as:",
    "REVOKED": "rv:",
    "IDEMPOTENCY": "k:",
    "TENANT_KEY": "tk:",
    "TENANT": "tn:",
    "USE": "use:",
    "DUE": "due:",
    "LEASED": "leased:",
    "LINES": "lines:",
    "TURNS": "turns:",
    "FAIR": "fair:",
    "LANES": "lanes",
    "ADMITTED": "adm:",
    "BACKLOGS": "backlogs",
    "BACKLOG_HOSTS": "bl-hosts:",
    "BACKLOG": "bl:",
    "BACKLOG_ALL": "backlog",
    "HANDLERS": "handlers",
    "HANDLERS_EARLY": "handlers-early",
    "INDEX": "ix:",
    "EXTERNAL": "xid:",
    "CATCH_UP": "catch-up",
    "PROVIDERS": "providers",
    "DEADLINES": "deadlines",
    "CLOSED": "closed",
    "DEAD": "dead",
    "TOOK": "took:",
    "RATE": "rate:",
    "GOVERNOR": "gov:",
    "TOKEN": "token:",
    "LOCK": "lock:",
    "ACCESS": "access",
    "ACCESS_LIMITED": "keys-limited",
    "WEBHOOKS": "w:",
    "WEBHOOKS_UNKNOWN": "w-unknown",
    "WEBHOOKS_SECRET": "w-secret",
    "USED": "used",
    "SESSION": "session:",
    "ENDPOINTS": "endpoints",
    "STATS": "stats",
    "STAT": "stat:",
    "IN_LEASED": "in:leased",
    "IN_MESSAGES": "in:messages",
    "IN_TAKES": "in:takes",
    "IN_REFUSED": "in:refused",
    "IN_SEQ": "in:seq",
    "ORPHANS": "orphans",
    "PROBE": "probe",
    "COPIED": "copied",
    "ACTS": "acts:",
    "JOB_ACTS": "acts-of:",
    "TRAILS": "trails",
    "NOTED": "noted:",
}


class Keys:
    """Key names of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.root = f"{{{namespace}}}:"
        self._names = {name: self.root + part for name, part in _PREFIXES.items()}

    def __call__(self, name: str, *parts: str) -> str:
        """The key called `name` in the table above, for a job, lane, group …"""
        return self._names[name] + ":".join(parts)

    def lua(self) -> dict[str, str]:
        """The same names in the scripts, and what stands for them in Lua."""
        return {name: f'"{key}"' for name, key in self._names.items()}
