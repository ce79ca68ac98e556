"""As upstream asks Yahoo."""

import yfinance as yf


class yfUtils:
    @staticmethod
    def get_stock_data(symbol, start_date, end_date, save_path=None):
        return yf.Ticker(symbol).history(start=start_date, end=end_date)
