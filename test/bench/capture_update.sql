-- All rows at once, in place: there is room on each page.
UPDATE orders SET status = 'paid', total = total + 1;
