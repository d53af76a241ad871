"""Submits a message with a library of Python's: LIBRARY HOST SENDER RECIPIENT ACCOUNT PASSWORD FILE."""

import asyncio
import smtplib
import ssl
import sys

library, host, sender, recipient, account, password, file = sys.argv[1:]
with open(file, "rb") as opened:
    message = opened.read()

if library == "smtplib":
    with smtplib.SMTP(host, 587, local_hostname="smtplib.test", timeout=20) as server:
        server.starttls(context=ssl._create_unverified_context())
        server.login(account, password)
        server.sendmail(sender, [recipient], message, mail_options=["BODY=8BITMIME"])
else:
    import aiosmtplib

    asyncio.run(
        aiosmtplib.send(
            message,
            sender=sender,
            recipients=[recipient],
            hostname=host,
            port=587,
            start_tls=True,
            validate_certs=False,
            username=account,
            password=password,
            mail_options=["BODY=8BITMIME"],
        )
    )
