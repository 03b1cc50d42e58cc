"""The embedded exchange: the only server of venue protocols, on loopback, from a simulated or a recorded market.

What a client cannot tell from the venue belongs here: the wire of each family (`binance`, `bybit`), what the venue
knows (`book`, `bars`, `state`), how it goes out (`feed`, `server`), and what goes wrong on purpose (`faults`). What a
market does is decided elsewhere: `market` simulates one, `archives` read recorded ones.

    async with serve(source, "binance_usdm", faults=faults, speed=None) as exchange:
        ...  # connect to exchange.websocket_url and exchange.rest_url
"""
