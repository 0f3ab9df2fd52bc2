"""Words of which catalogues of tools are made, and questions about them: 40 domains of 12 things each, and 16 things to do.

After each thing stands what people call it who do not know the tool (`=`). Many things are in more than one domain, and many are nearly the
same, as they are in catalogues that grew.
"""

from __future__ import annotations

import msgspec

DOMAINS = """
billing: billing, the accounts receivable: invoice=bill, payment=money we got, refund=money back, credit_note=voucher, tax_rate=VAT setting, price_list=tariff, subscription=recurring plan, coupon=discount code, payment_method=stored card, dunning_notice=reminder to pay, statement=summary of charges, dispute=chargeback
crm: the CRM, our customer records: contact=person we know, company=firm, lead=prospect, deal=opportunity, pipeline=sales funnel, call_log=phone record, customer_note=remark on a client, segment=audience, account_owner=key account manager, quote=offer, territory=sales region, campaign_member=participant of a promotion
support: the help desk, customer support: ticket=complaint, macro=canned answer, queue=inbox of complaints, escalation=case for a manager, satisfaction_survey=feedback form, agent_shift=rota of the desk, knowledge_article=help page, tag=label, sla_policy=promised response time, canned_response=template reply, ticket_comment=reply on a complaint, incident=outage
travel_air: flight booking, air travel: flight_booking=plane reservation, seat=place on board, passenger=traveller, baggage=suitcase, boarding_pass=pass for the gate, fare=ticket price, itinerary=trip plan, frequent_flyer_account=miles card, flight_status=delay information, layover=stopover, upgrade=better class, travel_certificate=flight credit
travel_hotel: hotel booking, lodging: hotel_booking=room reservation, room=place to sleep, guest=visitor, rate_plan=room price, housekeeping_task=cleaning job, minibar_charge=snack charge, check_in=arrival, amenity=extra of the room, hotel_review=opinion of a stay, group_block=rooms for a party, key_card=door card, wake_up_call=morning alarm
travel_car: car rental, hire cars: rental=hire, vehicle=car, driver=person at the wheel, damage_report=scratch record, pickup_location=station, insurance_option=cover, fuel_policy=tank rule, mileage_record=kilometres driven, toll_charge=road fee, reservation_extra=child seat or navigation, late_return=overdue car, rental_agreement=hire contract
calendar: the calendar, scheduling: event=appointment, meeting_room=conference room, attendee=invitee, availability=free slot, reminder=alert, recurring_series=repeating appointment, time_zone_setting=local time, holiday=day off, booking_page=public scheduling link, calendar_share=access to my diary, working_hours=office hours, conflict=overlap
email: email, the mailbox: message=mail, draft=unsent mail, folder=mailbox, attachment=enclosed file, filter=sorting rule, signature=closing lines, mailing_list=distribution list, out_of_office=absence reply, thread=conversation, alias=second address, spam_report=junk notice, forwarding_rule=redirect
chat: team chat, instant messages: channel=room, direct_message=private message, mention=ping, emoji=smiley, pin=sticky message, thread_reply=answer in a conversation, bot=assistant account, status=presence, huddle=quick call, workspace_member=colleague, reaction=thumbs up, file_upload=shared file
documents: document management, the wiki: document=text, folder=directory, revision=earlier version, comment=remark, template=model text, permission=access right, page=wiki article, space=section of the wiki, bookmark=favourite, signature_request=request to sign, watermark=stamp on pages, retention_rule=storage period
drive: file storage, the shared drive: file=data, folder=directory, shared_link=public address of a file, quota=space limit, trash_item=thrown away thing, version=older copy, sync_job=upload run, thumbnail=preview picture, file_lock=edit block, transfer=handover of ownership, comment=remark, label=tag
projects: project management, planning of work: task=to-do, milestone=big date, sprint=iteration, epic=large theme, board=wall of cards, dependency=blocker, time_entry=hours worked, project_member=someone on the team, risk=danger, status_report=progress summary, backlog_item=wish, roadmap=long plan
code: source control, the code hosting: repository=code base, branch=line of work, pull_request=change proposal, commit=change, issue=bug, release=shipped version, code_review=look at changes, webhook=callback address, deploy_key=machine access, fork=own copy of a code base, label=tag, workflow_run=pipeline execution
ci: continuous integration, builds: pipeline=build definition, build=compile run, artifact=output of a build, test_report=results of tests, runner=build machine, environment_variable=build setting, cache=stored packages, deployment=rollout, approval_gate=sign-off, schedule=nightly run, secret=hidden value, log=output text
cloud: cloud infrastructure, servers: virtual_machine=server, disk=volume, network=subnet, load_balancer=traffic splitter, firewall_rule=port opening, snapshot=saved state, dns_record=domain entry, certificate=TLS key, bucket=object store, autoscaling_group=elastic fleet, access_role=machine permission, budget_alert=cost warning
database: databases, SQL: table=relation, query=SQL statement, index=lookup structure, backup=safety copy, replica=standby, migration=schema change, database_user=login to the data, connection_pool=session limit, slow_query=lagging statement, view=saved select, partition=slice of data, lock=blocking session
monitoring: monitoring, alerts and dashboards: alert=alarm, dashboard=screen of charts, metric=measurement, on_call_rota=standby schedule, incident=outage, log_query=search in logs, uptime_check=ping test, silence=mute period, service_level=reliability target, trace=request path, anomaly=odd value, notification_channel=pager
security: information security, access control: user_account=login, password_reset=new password, api_key=token, role=set of rights, session=signed-in device, audit_entry=security log line, mfa_device=second factor, access_request=wish for rights, vulnerability=weakness, security_policy=rule on logins, ip_allowlist=permitted addresses, data_export_request=privacy request
hr: human resources, staff: employee=staff member, leave_request=holiday application, payslip=pay statement, contract=work agreement, job_opening=vacancy, applicant=candidate, performance_review=appraisal, onboarding_plan=first weeks plan, sick_note=illness certificate, department=unit, benefit=perk, working_time_record=clocked hours
payroll: payroll, salaries: salary=pay, bonus=extra pay, deduction=amount withheld, payroll_run=monthly pay out, tax_form=income tax paper, bank_account=payout account, overtime=extra hours, expense_reimbursement=money for outlays, pension_contribution=retirement saving, pay_grade=wage level, garnishment=seized wages, payslip=pay statement
recruiting: recruiting, hiring: candidate=applicant, job_posting=vacancy notice, interview=talk with an applicant, offer_letter=job offer, scorecard=grade of an applicant, referral=tip from staff, talent_pool=people for later, background_check=vetting, assessment=aptitude test, hiring_stage=step of hiring, recruiter=hiring officer, rejection_letter=refusal
shop: the web shop, e-commerce: order=purchase, cart=basket, product=article, discount=price cut, return=sent back goods, gift_card=present voucher, review=customer opinion, wishlist=saved articles, shipping_method=delivery option, product_variant=size or colour, collection=range of goods, checkout=till
inventory: inventory, the warehouse: stock_item=goods on hand, warehouse=depot, stock_transfer=move between depots, reorder_point=minimum quantity, supplier=vendor, purchase_order=order to a vendor, stock_count=physical count, batch=lot, bin_location=shelf, backorder=missing goods, barcode=scan code, stock_adjustment=correction of a quantity
shipping: shipping, parcels: shipment=parcel, label=address sticker, pickup=collection by the carrier, tracking_event=whereabouts of a parcel, carrier=courier, customs_form=border paper, delivery_address=where it goes, return_label=sticker for sending back, rate=postage, package_type=box size, insurance_claim=compensation for a loss, delivery_window=time of arrival
accounting: accounting, the ledger: journal_entry=booking, ledger_account=account in the books, expense=outlay, bank_transaction=line of a bank statement, reconciliation=matching of books and bank, fiscal_year=business year, asset=thing we own, depreciation_rule=write-off plan, cost_center=unit that pays, balance_sheet=overview of assets, tax_return=VAT declaration, vendor_bill=supplier invoice
banking: banking, accounts and transfers: account=giro, transfer=wire, standing_order=regular payment, card=bank card, beneficiary=payee, direct_debit=automatic collection, loan=credit, statement=list of movements, overdraft=negative balance allowance, exchange_rate=currency price, cheque=paper payment, savings_goal=target amount
insurance: insurance, policies and claims: policy=cover, claim=damage case, premium=contribution, beneficiary=person who is paid, coverage=what is insured, adjuster=assessor, quote=offer, deductible=own share, document_request=missing paper, renewal=extension of cover, policyholder=insured person, payout=settlement
health: the clinic, health care: appointment=visit, patient=sick person, prescription=medicine order, lab_result=blood value, referral=letter to a specialist, medical_record=chart, vaccination=shot, allergy=intolerance, insurance_coverage=health plan, treatment_plan=therapy, ward_bed=hospital bed, consent_form=signed agreement
pharmacy: the pharmacy, medicines: medication=drug, prescription_refill=repeat of a medicine, dosage=amount to take, interaction_check=clash of drugs, stock_item=goods on hand, supplier=vendor, recall=product withdrawal, patient_leaflet=package insert, compounding_order=mixed ointment, narcotic_record=opiate book, delivery=home service, price=cost of a drug
education: the school, courses and students: course=class, student=pupil, assignment=homework, grade=mark, enrollment=registration, lecture=lesson, exam=test, timetable=plan of lessons, certificate=diploma, attendance_record=who was there, tutor=private teacher, library_loan=borrowed book
events: events, tickets and venues: event=concert, ticket=admission, venue=hall, speaker=presenter, seat_map=plan of the hall, sponsor=backer, session=talk, badge=name tag, waitlist=queue for places, booth=stand, check_in=entrance control, catering_order=food for the guests
restaurant: the restaurant, tables and orders: table_reservation=dinner booking, menu_item=dish, order=what a guest wants, table=place to eat, kitchen_ticket=note for the cook, tip=gratuity, allergen=intolerance warning, delivery_order=takeaway, shift=working turn, supplier=vendor, wine_list=drinks card, special=dish of the day
real_estate: property management, rentals: property=house, lease=rental contract, tenant=renter, maintenance_request=repair job, rent_payment=monthly rent, viewing=visit of a flat, deposit=security money, inspection=check of a flat, listing=advertisement, utility_meter=power counter, eviction_notice=order to leave, key_handover=giving of keys
energy: the utility, power and gas: meter=counter, meter_reading=counter value, tariff=price plan, outage=power cut, supply_contract=delivery agreement, consumption_report=usage overview, installation=connection, payment_plan=instalments, solar_feed_in=own power sold, technician_visit=engineer appointment, disconnection=cut-off, address_change=move
telecom: the phone company, mobile and internet: phone_number=line, sim_card=chip, data_plan=mobile tariff, roaming_option=use abroad, call_record=list of calls, router=modem, port_request=move of a number, voicemail=recorded message, usage_alert=warning on data, contract=agreement, outage=network failure, device_order=new phone
manufacturing: the factory, production: work_order=production job, machine=equipment, bill_of_materials=parts list, quality_check=inspection, downtime=standstill, operator=worker, production_schedule=plan of the line, scrap_report=waste record, tool_change=swap of a tool, spare_part=replacement piece, maintenance_plan=service interval, batch_record=lot papers
fleet: fleet management, trucks: vehicle=truck, driver=person at the wheel, trip=tour, fuel_card=petrol card, maintenance_job=workshop visit, inspection=roadworthiness test, route=way, geofence=zone, driving_time=hours at the wheel, fine=traffic penalty, telematics_device=tracker, delivery_stop=drop-off
legal: the legal department, contracts: contract=agreement, clause=provision, matter=case, counterparty=other side, deadline=time limit, signature=undersigning, litigation_hold=freeze of papers, legal_invoice=bill of a lawyer, power_of_attorney=authority to act, trademark=brand right, compliance_check=review of rules, court_date=hearing
marketing: marketing, campaigns: campaign=promotion, landing_page=web page of a promotion, ad=advertisement, audience=target group, newsletter=mailing, keyword=search term, social_post=post on networks, ab_test=comparison of variants, asset=picture or video, utm_link=tracking address, lead_form=sign-up form, influencer=opinion leader
iot: smart buildings, devices: device=gadget, sensor_reading=measured value, thermostat=heating control, door_lock=lock, camera=video device, light_scene=lighting mood, firmware_update=new device software, alarm_zone=guarded area, automation=house rule, energy_report=power overview, room=space, gateway=hub
""".strip().splitlines()


class Deed(msgspec.Struct, frozen=True):
    """Something that is done to things: what tools say of it, and what people do."""

    name: str
    effect: str
    says: tuple[str, ...]
    """Descriptions; `{o}` is the thing, `{s}` are several, `{d}` is the domain."""
    others: tuple[str, ...]
    """How people say it in other words."""
    parameters: tuple[tuple[str, str, str], ...] = ()
    """Name, type and description; an id stands before them."""
    by_id: bool = True


_LIMIT = ("limit", "integer", "How many to return at most.")
DEEDS = (
    Deed("create", "write", ("Create a new {o} in {d}.", "Creates {a} {o} from the values given and returns its id.", "Adds {a} {o}. All required fields must be set."),
         ("set up", "make", "enter"), (("name", "string", "Name of the {o}."), ("details", "string", "Further fields, as text.")), by_id=False),
    Deed("get", "read", ("Get a single {o} by its id.", "Returns all fields of one {o} of {d}.", "Read {a} {o}: its status, dates and who changed it last."),
         ("look up", "show me", "pull up"), (("expand", "boolean", "Include linked records."),)),
    Deed("list", "read", ("List {s}, newest first.", "Returns a page of {s} of {d}, with filters.", "Lists all {s} that the caller may see."),
         ("give me an overview of", "show all", "enumerate"), (("status", "string", "Only {s} with this status."), _LIMIT), by_id=False),
    Deed("search", "read", ("Full-text search over {s}.", "Search {s} in {d} by keyword, date and status.", "Finds {s} whose fields match a query."),
         ("find", "look for", "dig out"), (("query", "string", "Words to search for."), _LIMIT), by_id=False),
    Deed("update", "write", ("Update fields of an existing {o}.", "Changes {a} {o} in {d}; fields that are left out stay as they are.", "Modify {a} {o}."),
         ("change", "correct", "edit"), (("changes", "object", "Field name -> new value."), ("reason", "string", "Why it is changed."))),
    Deed("delete", "destructive", ("Delete {a} {o} for good.", "Removes {a} {o} from {d}. This cannot be undone.", "Permanently deletes one {o}."),
         ("get rid of", "erase", "throw away"), (("confirm", "boolean", "Must be true."),)),
    Deed("cancel", "irreversible", ("Cancel {a} {o} that is still open.", "Cancels {a} {o} in {d} and notifies those concerned.", "Sets {a} {o} to cancelled."),
         ("call off", "stop", "withdraw"), (("reason", "string", "Why it is cancelled."), ("notify", "boolean", "Tell those concerned."))),
    Deed("send", "irreversible", ("Send {a} {o} to a recipient.", "Delivers {a} {o} by email or in the app.", "Sends out {a} {o} of {d}."),
         ("mail out", "pass on", "get out"), (("to", "string", "Address of the recipient."), ("subject", "string", "Subject line."))),
    Deed("export", "read", ("Export {s} as CSV or PDF.", "Produces a file with {s} of {d} for a period.", "Exports {s} for use elsewhere."),
         ("download", "save to a file", "get a spreadsheet of"), (("format", "string", "csv, xlsx or pdf."), ("since", "string", "First day, as 2026-01-31.")), by_id=False),
    Deed("approve", "irreversible", ("Approve {a} {o} that waits for a decision.", "Gives consent to {a} {o} in {d}.", "Marks {a} {o} as approved by the caller."),
         ("sign off", "give the green light to", "okay"), (("comment", "string", "Shown to whoever asked."),)),
    Deed("assign", "write", ("Assign {a} {o} to a person or team.", "Sets who is responsible for {a} {o} in {d}.", "Hands {a} {o} over to another assignee."),
         ("give to somebody", "put somebody in charge of", "delegate"), (("assignee", "string", "Who gets it."),)),
    Deed("archive", "write", ("Archive {a} {o}: it is hidden, and kept.", "Moves {a} {o} of {d} to the archive.", "Puts old {s} away without deleting them."),
         ("file away", "put away", "hide"), ()),
    Deed("restore", "write", ("Restore {a} {o} that was archived or deleted.", "Brings {a} {o} of {d} back.", "Recovers {a} {o} from the archive."),
         ("bring back", "recover", "get back"), ()),
    Deed("copy", "write", ("Copy {a} {o} with all of its fields.", "Duplicates {a} {o} in {d} under another name.", "Makes a second {o} like an existing one."),
         ("duplicate", "clone", "make another one like"), (("new_name", "string", "Name of the copy."),)),
    Deed("share", "write", ("Share {a} {o} with somebody.", "Grants another user access to {a} {o} in {d}.", "Shares {a} {o} read-only or for editing."),
         ("let somebody see", "give access to", "open up"), (("user", "string", "Who may see it."), ("role", "string", "viewer or editor."))),
    Deed("schedule", "write", ("Schedule {a} {o} for a date and time.", "Plans {a} {o} in {d} for later.", "Sets when {a} {o} takes place."),
         ("plan", "set a date for", "put in for later"), (("at", "string", "When, as 2026-01-31T15:00."), ("duration_minutes", "integer", "How long it takes."))),
)  # fmt: skip
