"""The service's settings: one file, read from the environment and from `.env`.

Each setting that an operator may change is documented in README.md, section
Configuration. Wrong values are reported by `manage.py check`.
"""

import os
from pathlib import Path

from csp.constants import NONE, SELF

from config import embedded
from config.environment import Env

VERSION = "0.1.0"
BASE_DIR = Path(__file__).resolve().parent.parent

env = Env()
env.read_env(BASE_DIR / ".env")

# Where the embedded servers of `make run` keep their state.
DATA_DIR = BASE_DIR / env.str("DATA_DIR", ".data")

# Without DATABASE_URL this is a development instance on the embedded PostgreSQL, and
# what `make run` chose for it (DEBUG, keys) holds for every command run beside it.
if "DATABASE_URL" not in os.environ:
    env.read_env(DATA_DIR / "development.env")

DEBUG = env.bool("DEBUG", False)

# --- Keys -------------------------------------------------------------------------

# Signs sessions and cursors. Changing it logs everybody out.
SECRET_KEY = env.str("SECRET_KEY", "")

# The key ring for signing secrets: base64 of 32 bytes each. The first encrypts, all
# decrypt; a key that is taken away makes the secrets under it unreadable.
SECRET_KEYS = env.list("SECRET_KEYS", default=[])

# --- Web --------------------------------------------------------------------------

# What `web` listens on; empty where it is not known. A check compares it with DEBUG.
HOST = env.str("HOST", "")

# Threads in each process of web, which the Procfile starts. One tenant's calls, and logins, get at most half each.
WEB_THREADS = env.int("WEB_THREADS", 16)

ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if DEBUG else [])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
APPEND_SLASH = False

INSTALLED_APPS = [
    "subscriptions",
    "deliveries",
    "subscriptions.apps.ConsoleConfig",  # django.contrib.admin
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_rq",
    "axes",
    "csp",
    "django_otp",
    "django_otp.plugins.otp_static",
    "django_otp.plugins.otp_totp",
]

MIDDLEWARE = [
    "subscriptions.problems.RequestIdMiddleware",
    "deliveries.readiness.DatabaseDeadlineMiddleware",
    "subscriptions.tenant_shares.TenantShareMiddleware",
    "subscriptions.api_audit.ApiAuditMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_AUTOREFRESH = DEBUG

LANGUAGE_CODE = "en"
USE_I18N = False
FORMAT_MODULE_PATH = "config.formats"
# RQ's scheduler reads cron strings in the process's own time zone, which Django sets
# from this: it has to stay UTC.
TIME_ZONE = "UTC"
USE_TZ = True

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Outside development the service expects a TLS proxy in front of it. Set
# TRUST_FORWARDED_PROTO only if that proxy overwrites X-Forwarded-Proto.
TRUST_FORWARDED_PROTO = env.bool("TRUST_FORWARDED_PROTO", False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUST_FORWARDED_PROTO else None
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG

# Who cannot tell HTTPS from HTTP would redirect for ever. A load balancer asks in plain HTTP,
# and so does a monitoring system within the house.
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", not DEBUG and TRUST_FORWARDED_PROTO)
SECURE_REDIRECT_EXEMPT = [r"^health$", r"^ready$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", 0 if DEBUG else 365 * 24 * 3600)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"

# HSTS for sub-domains and its preload list are a matter of the domain's owner.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

if not DEBUG:
    # No other host of the domain can set a cookie of such a name.
    SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "__Host-sessionid", "__Host-csrftoken"
SESSION_ENGINE = "subscriptions.sessions"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_SAMESITE = "Lax"  # so that a link from a chat leads to a page and not to a login
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Strict"
# Not in the database: a message may tell a new secret.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
X_FRAME_OPTIONS = "DENY"
# No inline scripts or styles, nothing from elsewhere; the pages of the API documentation need
# a little more, see config/urls.py.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# Proxies in front that append to X-Forwarded-For where they were called from. With too many a
# caller may choose the address that throttling and the audit log go by.
PROXY_COUNT = env.int("PROXY_COUNT", 0)

# The largest request body accepted, in bytes; a larger one gets 413.
MAX_BODY_BYTES = env.int("MAX_BODY_BYTES", 1_048_576)
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES

# What a monitoring system shows to read /metrics. None: /metrics is closed, and in development
# mode open to everybody.
METRICS_TOKEN = env.str("METRICS_TOKEN", "") or None

# --- Logging in to the admin -------------------------------------------------------

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]

# Whoever logs in on a page that names no place of this site to go on to.
LOGIN_REDIRECT_URL = "admin:index"

# Whether everybody has to set up a one-time code before anything else.
REQUIRE_OTP = env.bool("REQUIRE_OTP", False)
OTP_TOTP_ISSUER = "Webhook delivery service"

# After so many failures a user is locked out at that address, and the address for all users
# after ten times as many.
LOGIN_FAILURE_LIMIT = env.int("LOGIN_FAILURE_LIMIT", 5)
LOGIN_LOCKOUT_MINUTES = env.int("LOGIN_LOCKOUT_MINUTES", 15)

AXES_HANDLER = "subscriptions.logins.LoginHandler"
AXES_CLIENT_IP_CALLABLE = "subscriptions.origin.network_of"
AXES_USERNAME_CALLABLE = "subscriptions.logins.counted_name"
AXES_LOCKOUT_CALLABLE = "subscriptions.logins.locked_out"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = LOGIN_FAILURE_LIMIT
AXES_COOLOFF_TIME = "subscriptions.logins.lockout"
# Who goes on trying while locked out neither makes the lockout longer nor writes anything.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_SENSITIVE_PARAMETERS = ["username", "one_time_code", "csrfmiddlewaretoken"]
# The audit log tells more than these would.
AXES_DISABLE_ACCESS_LOG = True
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# --- Mail -------------------------------------------------------------------------

# Who is told of subscriptions that are about to be disabled, and by which mail server, as whom.
ADMINS = env.people("ADMINS")
SERVER_EMAIL = env.str("SERVER_EMAIL", "root@localhost")
globals().update(env.mail_server("EMAIL_URL", "smtp://localhost:25"))
EMAIL_TIMEOUT = 10
EMAIL_SUBJECT_PREFIX = "[Webhooks] "

# --- PostgreSQL and Redis ----------------------------------------------------------

DATABASES = {"default": env.postgresql("DATABASE_URL", embedded.database_url(DATA_DIR))}
DATABASES["default"] |= {
    "ENGINE": "config.postgresql",
    "CONN_MAX_AGE": None,
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": {
        "connect_timeout": 2,
        # A host that is gone is noticed after so many milliseconds, not after a quarter of an hour.
        "tcp_user_timeout": 5000,
        # A process that is frozen in the middle of a transaction lets go of its locks, and a
        # statement whose connection was cut (deliveries/sql.py) ends. Plans go through the
        # indexes also while a table is empty or not yet analysed: the plan of a prepared
        # statement is kept as the table grows.
        "options": "-c idle_in_transaction_session_timeout=10s -c client_connection_check_interval=1s "
        "-c enable_seqscan=off -c jit=off",
        # Lets deliveries/sql.py prepare its statements; Django's own cursors do not.
        "prepare_threshold": 5,
    }
    | DATABASES["default"].get("OPTIONS", {}),
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.redis("REDIS_URL", embedded.redis_url(DATA_DIR))

RQ_QUEUES = {
    name: {"URL": REDIS_URL, "SERIALIZER": "rq.serializers.JSONSerializer", "DEFAULT_TIMEOUT": 600}
    for name in ("deliveries", "maintenance")
}
RQ = {"JOB_CLASS": "deliveries.queue.Job", "COMMIT_MODE": "auto"}
RQ_SHOW_ADMIN_LINK = False

# --- Delivery ----------------------------------------------------------------------

# Seconds to wait after each failed attempt; a subscription may have its own.
RETRY_SCHEDULE = env.list("RETRY_SCHEDULE", cast=int, default=[120, 240, 480, 960, 1920])

# Whole-call limit in seconds, from looking up the name to the last byte of the answer.
CALL_TIMEOUT_SECONDS = env.int("CALL_TIMEOUT_SECONDS", 15)

# A claimed request is due again this long after its call limit, if nobody settles it.
# Longer means slower recovery from a killed worker; shorter risks sending twice.
LEASE_MARGIN_SECONDS = env.float("LEASE_MARGIN_SECONDS", 30)

# How often the clock wakes a worker: the most that a retry or a lost wake-up is late.
TICK_SECONDS = env.int("TICK_SECONDS", 1)

# Calls in flight at once: by default for one subscription, and in one worker process, of
# which one customer gets at most half.
MAX_IN_FLIGHT = env.int("MAX_IN_FLIGHT", 32)
WORKER_CONCURRENCY = env.int("WORKER_CONCURRENCY", 1024)

# After nothing but failures for this long, in seconds, a subscription is disabled.
DISABLE_AFTER_SECONDS = env.int("DISABLE_AFTER_SECONDS", 5 * 24 * 3600)

# After this many failures in a row an ordered subscription goes on with the next request
# and retries the failing one later, out of order. None: it always waits for the failing one.
ORDERED_SKIP_AFTER = env.int("ORDERED_SKIP_AFTER") if env.str("ORDERED_SKIP_AFTER", "") else None

# Networks that receivers may be on besides the public ones.
ALLOWED_NETWORKS = env.list("ALLOWED_NETWORKS", default=["127.0.0.0/8", "::1/128"] if DEBUG else [])

# A file with the certificates of the authorities to trust, in place of those of certifi.
CA_BUNDLE = env.str("CA_BUNDLE", None)

# Requests a second that recovers and bulk replays bring back, all of them together. More is
# done sooner, and leaves less of the workers to what comes in meanwhile.
OPERATION_RATE = env.int("OPERATION_RATE", 100)

# Settled requests older than this are purged every day.
RETENTION_DAYS = env.int("RETENTION_DAYS", 30)

# --- REST API ----------------------------------------------------------------------

# How often one API key may call, over all web processes, such as 500/second or 1000/minute;
# empty: as often as it likes. Ingest calls have no key.
API_RATE_LIMIT = env.str("API_RATE_LIMIT", "500/second")

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["subscriptions.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["subscriptions.authentication.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": [
        "subscriptions.rate_limits.ApiKeyRateLimit",
        "subscriptions.tenant_shares.TenantShare",
    ],
    "DEFAULT_PARSER_CLASSES": ["subscriptions.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "subscriptions.parsers.JSONOnly",
    "DEFAULT_SCHEMA_CLASS": "subscriptions.openapi.Schema",
    "DEFAULT_METADATA_CLASS": "subscriptions.parsers.NoMetadata",
    "EXCEPTION_HANDLER": "subscriptions.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Webhook delivery service",
    "DESCRIPTION": "Accepts signed events and delivers them, signed, to the endpoints that subscribed to them.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "subscriptions.openapi.document_problems",
        "subscriptions.openapi.document_strictness",
        "subscriptions.openapi.document_event_types",
        "subscriptions.openapi.document_anything",
        "deliveries.introduction.introduce",
        "deliveries.introduction.link",
        "deliveries.glossary.explain",
    ],
    "ENUM_NAME_OVERRIDES": {
        "SubscriptionStatusEnum": "subscriptions.models.Subscription.Status",
        "RequestStatusEnum": "deliveries.models.WebhookRequest.Status",
        "HoldReasonEnum": "deliveries.models.HoldReason",
        "OperationStatusEnum": "deliveries.bulk.Operation.Status",
        "TriggerEnum": "deliveries.models.Trigger",
        "ErrorClassEnum": "deliveries.serializers.ERROR_CHOICES",
    },
}

# --- Logs --------------------------------------------------------------------------

LOG_LEVEL = env.log_level("LOG_LEVEL", "INFO")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "fmt": "%(asctime)s %(levelname)s %(name)s %(message)s",
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        },
    },
    "filters": {"shortened": {"()": "config.refused_forms.Shortened"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # Without Django's own handlers, one of which would mail errors, with what was sent, to ADMINS.
        "django": {"level": "INFO"},
        # A line per RQ job says nothing that the log of attempts does not.
        "rq.worker": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "rq_scheduler.scheduler": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "django.request": {"level": "ERROR"},
        # Whoever calls could fill the log with stacks: a wrong Host, too many files, a filter that the
        # admin does not offer. Refused forms are a line each, which tells what CSRF_TRUSTED_ORIGINS lacks.
        "django.security": {"level": "CRITICAL"},
        "django.security.csrf": {"level": "WARNING", "filters": ["shortened"]},
        "axes": {"level": "ERROR"},
    },
}
