import os

# libcurl would write the keys of every TLS connection to the file that this names, so that
# whoever records the traffic can read it. It looks when pycurl is imported: not before this.
os.environ.pop("SSLKEYLOGFILE", None)
