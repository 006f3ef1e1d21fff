"""distros"""
